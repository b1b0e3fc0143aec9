"""The one file under research."""
