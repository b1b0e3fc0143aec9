"""What an agent may do: one module per tool, plain typed functions over a Lab. No mcp, no torch."""
