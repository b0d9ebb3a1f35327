"""The optimizers and schedules next to the packages they come from, run live: `make test-peers`."""
