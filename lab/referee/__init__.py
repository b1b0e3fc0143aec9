"""The trusted code that times, confines, scores and records one run. No code of a candidate runs inside it."""
