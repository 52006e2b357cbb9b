"""The source of a model that takes two inputs, which come with it in a tuple or as keyword arguments."""

SEVERAL_INPUTS = """
import torch

class Two(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(3)

    def forward(self, a, b):
        return self.norm(a + 10 * b)

def two_inputs():
    torch.manual_seed(0)
    return Two(), (torch.randn(40, 3), torch.randn(40, 3))

def keywords():
    model, (a, b) = two_inputs()
    return model, {"b": b, "a": a}
"""
