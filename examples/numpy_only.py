"""Train a small network in NumPy, with batch norm by normkit.functional and its gradients by normkit.reference.

Expect about 96% of the test digits right in both lines: evaluation by the running statistics is as good for one image at
a time as for all of them, since a sample's result no longer depends on the batch.
"""

import numpy as np
from sklearn.datasets import load_digits

from normkit import functional as F
from normkit.reference import gradients
from normkit.spec import Norm

x, labels = load_digits(return_X_y=True)
x = x / 16.0
test = np.arange(len(x)) % 5 == 0  # every fifth image
rng = np.random.default_rng(0)
w1, w2 = rng.normal(0, 0.125, (64, 32)), rng.normal(0, 0.18, (32, 10))
weight, bias = np.ones(32), np.zeros(32)
running_mean, running_var = np.zeros(32), np.ones(32)


def forward(x, training):
    """Return what the norm gets, what it gives, and the scores of the ten digits."""
    hidden = x @ w1
    normed = F.batch_norm(hidden, running_mean, running_var, weight, bias, training)  # moves both running arrays
    return hidden, normed, np.maximum(normed, 0) @ w2


def accuracy(scores, labels):
    return (scores.argmax(1) == labels).mean()


images, targets = x[~test], labels[~test]
for epoch in range(10):
    order = rng.permutation(len(images))
    for batch in np.array_split(order, len(order) // 32):
        hidden, normed, scores = forward(images[batch], training=True)
        shifted = scores - scores.max(1, keepdims=True)
        d_scores = np.exp(shifted) / np.exp(shifted).sum(1, keepdims=True)
        d_scores[np.arange(len(batch)), targets[batch]] -= 1  # cross-entropy after softmax
        d_scores /= len(batch)
        d_normed = (d_scores @ w2.T) * (normed > 0)
        back = gradients(d_normed, hidden, Norm("batch"), weight)
        w2 -= 0.5 * np.maximum(normed, 0).T @ d_scores
        w1 -= 0.5 * images[batch].T @ back.dx
        weight -= 0.5 * back.dweight
        bias -= 0.5 * back.dbias
    print(
        f"epoch {epoch + 1}: {accuracy(forward(images, training=False)[2], targets):.3f} of the training images right"
    )

print(f"test images, all at once:   {accuracy(forward(x[test], training=False)[2], labels[test]):.3f}")
one_by_one = np.concatenate([forward(image[None], training=False)[2] for image in x[test]])
print(f"test images, one at a time: {accuracy(one_by_one, labels[test]):.3f}")
