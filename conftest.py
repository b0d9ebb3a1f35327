"""What is not collected: each of these modules needs one backend, and has no examples."""

collect_ignore_glob = ["keras_lrsched/kernels/*_update.py"]
