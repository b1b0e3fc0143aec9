"""autoresearch-mcp: the coding agent is the researcher, the server is the referee.

The folders of the repository are the subpackages: server, tools, lab, trainer, prepare (see AGENTS.md for the map).
"""
