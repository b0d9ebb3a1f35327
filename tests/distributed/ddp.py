"""`DistributedDataParallel` of PyTorch in the loop of Keras' guide, over gloo: `ddp.py OPTIMIZER ...`, prints JSON."""

# ruff: noqa: E402
import json
import os
import sys

os.environ["KERAS_BACKEND"] = "torch"
ADDRESSES, WORKER = json.loads(os.environ["ADDRESSES"]), int(os.environ["WORKER"])
WORKERS = len(ADDRESSES)

import keras
import torch

from tests.distributed import problem


def trained(name, model, share, around):
    """The weights after an epoch of which this process sees the `share`."""
    optimizer = problem.optimizer_cases()[name]()
    network, loss_of = around(model), keras.losses.MeanSquaredError()
    for start in range(0, problem.STEPS * problem.BATCH, problem.BATCH):
        x, y = (torch.tensor(each[start : start + problem.BATCH][share]) for each in problem.data())
        model.zero_grad()
        loss_of(y, network(x)).backward()
        gradients = [variable.value.grad for variable in model.trainable_weights]
        with torch.no_grad():
            optimizer.apply(gradients, model.trainable_weights)
    return model.get_weights()


def apart(name):
    """By how much all processes together end elsewhere than one alone."""
    size = problem.BATCH // WORKERS
    own = slice(WORKER * size, (WORKER + 1) * size)
    alone = trained(name, problem.model("sgd"), slice(None), lambda model: model)
    return problem.apart(alone, trained(name, problem.model("sgd"), own, torch.nn.parallel.DistributedDataParallel))


if __name__ == "__main__":
    torch.distributed.init_process_group("gloo", f"tcp://{ADDRESSES[0]}", world_size=WORKERS, rank=WORKER)
    print(json.dumps({name: apart(name) for name in sys.argv[1:]}))
    torch.distributed.destroy_process_group()
