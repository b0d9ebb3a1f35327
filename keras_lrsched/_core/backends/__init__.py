"""What differs between the backends of Keras, and what programs of any backend may hold."""
