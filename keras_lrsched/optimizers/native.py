"""What TensorFlow alone needs: sparse gradients, several replicas, errors from within a graph."""

import keras

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    def dense(gradient, variable):
        """A tensor with the shape of the variable, which a gradient in a graph, such as that of a slice, may not know."""
        dense = tf.convert_to_tensor(gradient)
        known = dense.shape.is_fully_defined() or isinstance(variable, Rows)
        return dense if known else tf.ensure_shape(dense, variable.shape)

    def is_sparse(gradient):
        return isinstance(gradient, tf.IndexedSlices)

    class Rows:
        """Some rows of a variable, as if they were a variable of their own."""

        def __init__(self, whole, indices):
            self.whole, self.indices = whole, indices
            self.path, self.dtype = whole.path, whole.dtype

        def of(self, variables):
            """The same rows of other variables, by name."""
            return {name: Rows(variable, self.indices) for name, variable in variables.items()}

        def assign(self, value):
            self.whole.value.scatter_update(tf.IndexedSlices(value, self.indices))

        def __tf_tensor__(self, dtype=None, name=None):
            return tf.gather(self.whole.value, self.indices)

    def used_rows(gradient, variable):
        """A sparse gradient as a dense one of the rows that it has, and these rows of the variable."""
        indices, positions = tf.unique(gradient.indices)
        return tf.math.unsorted_segment_sum(gradient.values, positions, tf.size(indices)), Rows(variable, indices)

    def replicas():
        return tf.distribute.get_strategy().num_replicas_in_sync

    def summed_over_replicas(optimizer, grads, variables):
        pairs = list(zip(grads, variables, strict=True))
        return [gradient for gradient, _ in optimizer._all_reduce_sum_gradients(pairs)]

    def assign_on_each_replica(variable, value):
        """Each replica has computed the same value; they may assign it only together."""

        def assign(strategy, value):
            strategy.extended.update(variable.value, lambda part, x: part.assign(x), args=(value,), group=False)

        tf.__internal__.distribute.interim.maybe_merge_call(assign, tf.distribute.get_strategy(), value)

    def assert_in_graph(condition, message):
        tf.debugging.Assert(condition, [message])

else:

    def dense(gradient, variable):
        return gradient

    def is_sparse(gradient):
        return False

    def replicas():
        return 1

    def summed_over_replicas(optimizer, grads, variables):
        return grads

    def assign_on_each_replica(variable, value):
        variable.assign(value)

    def assert_in_graph(condition, message):
        """Nothing: a compiled function cannot raise here."""
