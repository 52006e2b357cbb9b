"""The forms in which layers take an activation: each gives every value once, and takes it back to its place."""

import pytest
import torch

from normkit.train.form import Form, form_for

IMAGES, FEATURES = torch.arange(2 * 6 * 4 * 5).reshape(2, 6, 4, 5), torch.arange(2 * 6).reshape(2, 6)


@pytest.mark.parametrize(
    ("form", "of_images", "of_features"),
    [
        (Form(2), (40, 6), (2, 6)),
        (Form(3), (2, 6, 20), (2, 6, 1)),
        (Form(4), (2, 6, 4, 5), (2, 6, 1, 1)),
        (Form(5), (2, 6, 1, 4, 5), (2, 6, 1, 1, 1)),
        (Form(3, last=True), (2, 20, 6), (2, 1, 6)),
        (Form(4, last=True), (2, 4, 5, 6), (2, 1, 1, 6)),
        (Form(5, last=True), (2, 1, 4, 5, 6), (2, 1, 1, 1, 6)),
        (Form(2, as_row=True), (2, 120), (2, 6)),
        (Form(3, as_row=True), (2, 1, 120), (2, 1, 6)),
    ],
)
def test_a_form_goes_there_and_back(form: Form, of_images: tuple[int, ...], of_features: tuple[int, ...]) -> None:
    for x, shape in ((IMAGES, of_images), (FEATURES, of_features)):
        given = form.given(x)
        assert given.shape == shape
        assert torch.equal(form.back(given, x), x)
        assert form.changes(x.dim()) == (given.shape != x.shape or not torch.equal(given, x))
    channel = form.given(IMAGES).flatten(0, -2)[:, 0] if form.last else None
    assert channel is None or torch.equal(channel, IMAGES[:, 0].flatten())


@pytest.mark.parametrize(
    ("family", "ranks", "rank", "expected"),
    [
        ("batch", (2, 4), 4, Form(4)),
        ("batch", (2, 4), 2, Form(2)),
        ("batch", (2,), 4, Form(2)),  # positions pass for samples
        ("batch", (4,), 2, Form(4)),
        ("group", (2,), 4, None),  # a group's statistics are of one sample, so positions may not
        ("group", (3,), 4, Form(3)),
        ("instance", (5,), 4, Form(5)),
        ("layer", (3, 4), 4, Form(3, as_row=True)),
        ("layer", (), 4, None),
    ],
)
def test_the_nearest_form_that_means_the_same(
    family: str, ranks: tuple[int, ...], rank: int, expected: Form | None
) -> None:
    assert form_for(family, ranks, rank, last=False) == expected
