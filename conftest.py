"""What is not collected: each of these modules needs one backend, and has no examples."""

collect_ignore_glob = [f"keras_lrsched/kernels/{backend}_*.py" for backend in ("tensorflow", "jax", "torch")]
