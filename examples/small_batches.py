"""Batch norm against group norm at a batch of two, on scikit-learn's digits.

It depends on how many values a mean has. After a convolution a channel has batch · height · width of them, 128 here at a
batch of two. After a linear layer it has two, of which the larger becomes 1 and the smaller -1.

Expect batch norm ahead of group norm in the convolutional network, at both sizes, and far behind it in the linear one at a
batch of two (0.65 against 0.89). These are small images and one epoch: measure it on data of your own.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

import normkit

torch.set_num_threads(1)  # the batches are too small to share
digits = load_digits()
images = torch.tensor(digits.images / 16.0, dtype=torch.float32)[:, None]  # (1797, 1, 8, 8)
labels = torch.tensor(digits.target)
test = torch.arange(len(images)) % 5 == 0  # every fifth image


def convolutional(norm):
    layers = [nn.Conv2d(1, 16, 3, padding=1), norm(16), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), norm(32), nn.ReLU()]
    return nn.Sequential(*layers, nn.AvgPool2d(2), nn.Flatten(), nn.Linear(512, 10))


def linear(norm):
    layers = [nn.Linear(64, 64), norm(64), nn.ReLU(), nn.Linear(64, 64), norm(64), nn.ReLU()]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(64, 10))


def test_accuracy(network, norm, batch, seed):
    torch.manual_seed(seed)
    model = network(norm)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05 * batch / 32, momentum=0.9)
    train_images, train_labels = images[~test][:-1], labels[~test][:-1]  # an even number: no batch of one is left
    for part in torch.randperm(len(train_images)).split(batch):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(train_images[part]), train_labels[part]).backward()
        optimizer.step()
    model.eval()
    return (model(images[test]).argmax(1) == labels[test]).double().mean().item()


networks = {"convolutional": (convolutional, normkit.BatchNorm2d), "linear": (linear, normkit.BatchNorm1d)}
print("network        norm   batch 2  batch 32   (test accuracy after one epoch, mean of two runs)")
for name, (network, batch_norm) in networks.items():
    for label, norm in (("batch", batch_norm), ("group", lambda channels: normkit.GroupNorm(4, channels))):
        two, many = (sum(test_accuracy(network, norm, batch, seed) for seed in (0, 1)) / 2 for batch in (2, 32))
        print(f"{name:14} {label}  {two:7.3f}  {many:8.3f}")
