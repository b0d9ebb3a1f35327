"""A token for the Ray of the tests, which else would write one to the home folder; set before Ray is imported."""

import os

os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", "token-of-the-tests")
