"""`python -m autoresearch_mcp.server.cli`: how a client starts the server when no console script is on its path."""

from . import main

main()
