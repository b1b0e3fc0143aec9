"""How agents reach us: the MCP application, its transports, the command line and the built-in autopilot."""
