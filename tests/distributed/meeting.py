"""Meets the other workers: `meeting.py TIMEOUT VERSIONS`; exits with 1 and the error if that fails."""

import json
import os
import sys

from keras_lrsched import distributed

timeout, versions = float(sys.argv[1]), json.loads(os.environ["VERSIONS"])
distributed.wait_for_workers(json.loads(os.environ["ADDRESSES"]), int(os.environ["WORKER"]), timeout, versions)
