"""The built-in researcher: it drives a lab through the MCP tools exactly as an agent would."""
