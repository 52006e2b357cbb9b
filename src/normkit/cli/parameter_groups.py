"""``normkit parameter-groups``."""

from typing import Annotated

import typer

from normkit.cli.models import Target, print_result
from normkit.cli.options import Format


def parameter_groups(
    target: Target,
    weight_decay: Annotated[
        float, typer.Option(metavar="DECAY", help="The weight decay of the parameters that have one.")
    ] = 0.01,
    no_decay: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Parameters that are not to decay either, as '*.pos_embed'; repeat it.",
            show_default=False,
        ),
    ] = None,
    output: Format = "table",
) -> None:
    """Say which parameters of a model weight decay is for.

    Norms are known by their class or by experiment, not by their name or number of axes: their weights and biases do
    not decay, and neither does any other bias. In a program: torch.optim.AdamW(normkit.parameter_groups(model, 0.01)).

    [bold]Examples[/bold]

    What goes where, and the same with position embeddings left out:

        normkit parameter-groups net.py:build
        normkit parameter-groups net.py:build --no-decay '*.pos_embed'

    Exit status: 0 done; 2 bad options, or a function that makes no model.
    """
    from normkit.checking.target.load import load
    from normkit.model import parameter_groups as groups_of
    from normkit.model.files import build_model

    model, _ = build_model(load(target))
    groups = groups_of(model, weight_decay, no_decay=no_decay or ())
    print_result(groups, output)
