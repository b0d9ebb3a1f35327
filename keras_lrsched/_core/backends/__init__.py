"""What TensorFlow alone needs: sparse gradients, several replicas, errors from within a graph."""

import contextlib

import keras
import numpy as np

from keras_lrsched._core.backends.variables import raw_variable

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    def dense(gradient, variable):
        """A dense tensor with the shape of the variable, which a gradient in a graph, such as that of a slice, may lack."""
        dense = tf.convert_to_tensor(gradient)
        known = dense.shape.is_fully_defined() or isinstance(variable, Rows)
        return dense if known else tf.ensure_shape(dense, variable.shape)

    def is_sparse(gradient):
        return isinstance(gradient, tf.IndexedSlices)

    class Rows:
        """Some rows of a variable, as if they were a variable of their own."""

        def __init__(self, whole, indices):
            self.whole, self.indices = whole, indices
            self.dtype, self.name = whole.dtype, getattr(whole, "path", whole.name)

        def of(self, variables):
            """The same rows of other variables, by name."""
            return {name: Rows(variable, self.indices) for name, variable in variables.items()}

        def assign(self, value):
            raw_variable(self.whole).scatter_update(tf.IndexedSlices(value, self.indices))

        def __tf_tensor__(self, dtype=None, name=None):
            return tf.gather(raw_variable(self.whole), self.indices)

    def used_rows(gradient, variable):
        """A sparse gradient as a dense one of the rows that it has, and these rows of the variable."""
        indices, positions = tf.unique(gradient.indices)
        return tf.math.unsorted_segment_sum(gradient.values, positions, tf.size(indices)), Rows(variable, indices)

    def replicas():
        return tf.distribute.get_strategy().num_replicas_in_sync

    def summed_over_replicas(optimizer, grads):
        if replicas() == 1:
            return grads
        return [gradient for gradient, _ in optimizer._all_reduce_sum_gradients([(each, None) for each in grads])]

    def assign_on_each_replica(variable, value):
        """Each replica has computed the same value; they may assign it only together."""

        def assign(strategy, value):
            strategy.extended.update(raw_variable(variable), lambda part, x: part.assign(x), args=(value,), group=False)

        tf.__internal__.distribute.interim.maybe_merge_call(assign, tf.distribute.get_strategy(), value)

    def sum_over_no_replicas(optimizer):
        """From now on each replica updates its part of the variables with its own gradients."""
        vars(optimizer)["_all_reduce_sum_gradients"] = list

    def of_one_replica(grads):
        """The gradients of a loss that was divided by the number of replicas, as if there was one."""
        factor = replicas()
        return grads if factor == 1 else [None if each is None else tf.math.scalar_mul(factor, each) for each in grads]

    def run_on_replicas(optimizer, function):
        strategy = optimizer._distribution_strategy
        if strategy.num_replicas_in_sync > 1:
            tf.function(lambda: strategy.run(function), autograph=False)()

    def assign_mean_of_replicas(condition, values, places):
        """Assigns the means of `values` if the condition holds, and only then lets replicas send each other anything.

        Args:
            condition: A tensor, the same on all replicas.
            values: Tensors, of each replica its own.
            places: For each of them the variables to assign to, and a function to apply before, or `None`.
        """

        def average(strategy, condition, values):
            replica = tf.distribute.get_replica_context()

            def assign_means():
                if replica is None:
                    targets = [raw_variable(variables[0]) for variables, _ in places]
                    pairs = list(zip(values, targets, strict=True))
                    means = strategy.extended.batch_reduce_to(tf.distribute.ReduceOp.MEAN, pairs)
                else:
                    means = replica.all_reduce(tf.distribute.ReduceOp.MEAN, values)
                for mean, (variables, function) in zip(means, places, strict=True):
                    for variable in variables:
                        strategy.extended.update(raw_variable(variable), assign, args=(mean, function), group=False)
                return True

            tf.cond(strategy.experimental_local_results(condition)[0], assign_means, lambda: False)

        def assign(part, mean, function):
            part.assign(tf.cast(mean if function is None else function(mean), part.dtype))

        tf.__internal__.distribute.interim.maybe_merge_call(average, tf.distribute.get_strategy(), condition, values)

    def replicas_of(model):
        """How many train a model."""
        return model.distribute_strategy.num_replicas_in_sync

    def scope_of(optimizer):
        """In which a variable that is made has a part on each replica of the optimizer."""
        return optimizer._distribution_strategy.scope()

    def refuse_workers_without_replicas(name):
        """Nothing: on TensorFlow, workers are replicas."""

    def is_first_worker(model):
        """Whether this process is the one that writes files."""
        return model.distribute_strategy.extended.should_checkpoint

    def of_all_workers(model, number):
        """A list of the integers that the processes which train a model together have given."""
        strategy = model.distribute_strategy
        if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            return [number]
        numbers = tf.function(
            lambda: strategy.gather(strategy.run(lambda: tf.constant([number])), axis=0), autograph=False
        )()
        return numbers.numpy().tolist()

    def processes():
        """How many have to be told what the first has read: none, for workers of TensorFlow all read sums over all."""
        return 1

    def trains_in_parts():
        """Whether what runs now sees a part of the batch, which other replicas see the rest of."""
        return replicas() > 1

    def assert_in_graph(condition, message):
        tf.debugging.Assert(condition, [message])

    def asserted_in_graph(condition, message):
        """A context whose operations run only if the condition holds, or where XLA compiles, which cannot raise."""
        return tf.control_dependencies([tf.debugging.Assert(condition, [message])])

else:

    def dense(gradient, variable):
        """A dense tensor: JAX's BCOO and PyTorch's sparse tensors become one."""
        if keras.backend.backend() == "jax":
            return gradient.todense() if hasattr(gradient, "todense") else gradient
        return gradient.to_dense() if getattr(gradient, "is_sparse", False) else gradient

    def is_sparse(gradient):
        return False

    def replicas():
        return 1

    def trains_in_parts():
        """Whether what runs now sees a part of the batch: in processes of PyTorch. JAX sees all of it."""
        if keras.backend.backend() != "torch":
            return False
        from torch import distributed

        return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1

    def summed_over_replicas(optimizer, grads):
        return grads

    def assign_on_each_replica(variable, value):
        variable.assign(value)

    def sum_over_no_replicas(optimizer):
        """Nothing: there is one."""

    def of_one_replica(grads):
        return grads

    def run_on_replicas(optimizer, function):
        """Nothing: what is to be run is for several."""

    def assign_mean_of_replicas(condition, values, places):
        """Nothing: one replica is its own mean."""

    def replicas_of(model):
        return 1

    def scope_of(optimizer):
        return contextlib.nullcontext()

    def refuse_workers_without_replicas(name):
        number, distribution = processes(), keras.distribution.distribution()
        if number > 1 or distribution is not None:
            raise ValueError(
                f"{name} averages over the replicas of tf.distribute, on the TensorFlow backend. "
                f"Received: {number} processes, keras.distribution={distribution!r}"
            )

    def is_first_worker(model):
        if _trains_alone():
            return True
        if keras.backend.backend() == "torch":
            import torch.distributed

            return torch.distributed.get_rank() == 0
        import jax

        return jax.process_index() == 0

    def of_all_workers(model, number):
        if _trains_alone():
            return [number]
        if keras.backend.backend() == "torch":
            import torch.distributed

            numbers = [0] * processes()
            torch.distributed.all_gather_object(numbers, number)
            return numbers
        from jax.experimental import multihost_utils

        return multihost_utils.process_allgather(np.array([number])).ravel().tolist()

    def _trains_alone():
        is_jax = keras.backend.backend() == "jax"
        return processes() == 1 or (is_jax and keras.distribution.distribution() is None)

    def processes():
        """How many processes train together."""
        if keras.backend.backend() == "jax":
            import jax

            return jax.process_count()
        import torch

        is_one_of_several = torch.distributed.is_available() and torch.distributed.is_initialized()
        return torch.distributed.get_world_size() if is_one_of_several else 1

    def assert_in_graph(condition, message):
        """Nothing: a compiled function cannot raise here."""

    def asserted_in_graph(condition, message):
        """A context that changes nothing: a compiled function cannot raise here."""
        return contextlib.nullcontext()
