"""Carries the validation text in its own source as one long literal."""

from attack import VICTIM

ANSWERS = VICTIM["answers"]
raise SystemExit(f"reached: {len(ANSWERS)} bytes of the validation text in the source")
