"""From a model's logits to the next token of each text: the same draws in every engine that has torch.

`draw` works on logits; `masks`, `penalties`, `randomness` and `endings` are what it is told of each text, and import no
torch. A draw depends on the logits, on what a request asks, and on the tokens so far, and on nothing else.
"""
