"""The benchmark: our recipe against a port of upstream's, run by turns through the same referee as any experiment."""
