"""ResNet for images of 32 x 32 pixels (He et al. 2015, arXiv:1512.03385, section 4.2)."""

import keras
from keras import layers, regularizers


def resnet(blocks_per_stage=3, classes=10, weight_decay=1e-4):
    """A ResNet of 6 n + 2 layers: n = 3 is ResNet-20, 269,722 trainable weights. Returns logits.

    Shortcuts are the paper's option A: identities, padded with zero channels where the width doubles.
    """
    image = keras.Input((32, 32, 3))
    x = layers.ReLU()(_convolution(image, 16, 1, weight_decay))
    for width in (16, 32, 64):
        for block in range(blocks_per_stage):
            x = _block(x, width, strides=2 if block == 0 and width > 16 else 1, weight_decay=weight_decay)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(classes, kernel_regularizer=regularizers.L2(weight_decay / 2))(x))


def _block(x, width, strides, weight_decay):
    y = layers.ReLU()(_convolution(x, width, strides, weight_decay))
    y = _convolution(y, width, 1, weight_decay)
    if strides > 1:
        x = keras.ops.pad(x[:, ::strides, ::strides], [(0, 0), (0, 0), (0, 0), (width // 4, width // 4)])
    return layers.ReLU()(x + y)


def _convolution(x, width, strides, weight_decay):
    x = layers.Conv2D(
        width,
        3,
        strides,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        kernel_regularizer=regularizers.L2(weight_decay / 2),  # Keras' L2 has no factor 1/2
    )(x)
    return layers.BatchNormalization(momentum=0.9)(x)
