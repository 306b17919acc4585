"""The decoder: built from an architecture and a checkpoint, run over one batch at a time.

Owns the weights. Keeps no state between steps; the cache is the views' business.
"""

import torch
from torch import Tensor
from torch.nn import functional

from shared.engine.torch_engine.activation import gate
from shared.engine.torch_engine.architecture import Architecture
from shared.engine.torch_engine.device import Device
from shared.engine.torch_engine.layers import Attention, FeedForward, Layer
from shared.engine.torch_engine.linear import Linear, linear
from shared.engine.torch_engine.norms import Norm, norm
from shared.engine.torch_engine.ranks.collective import Group, Joined, Summed
from shared.engine.torch_engine.ranks.shards import Cut, Shard
from shared.engine.torch_engine.ranks.shards import shard as whole
from shared.engine.torch_engine.view import Batch, HeadNorms
from shared.engine.torch_engine.weights import Checkpoint


class Model:
    """Embedding, layers, norm, head."""

    def __init__(
        self, architecture: Architecture, embedding: Tensor, layers: list[Layer], norm: Norm, head: Linear
    ) -> None:
        self.architecture = architecture
        self._embedding = embedding
        self._layers = layers
        self._norm = norm
        self._head = head
        # rounded as a tensor of the model's dtype would be
        self._scale = torch.tensor(architecture.embedding_scale, dtype=embedding.dtype).item()

    def forward(self, batch: Batch) -> Tensor:
        """Have the batch's keys and values written; the logits [samples, vocabulary] of its sampled rows."""
        x = functional.embedding(batch.tokens, self._embedding)
        if self._scale != 1.0:
            x = x * self._scale
        more: Tensor | None = None
        for kind, layer in zip(self.architecture.layers, self._layers, strict=True):
            x, more = layer(x, more, batch.views[kind])
        if batch.sampled is not None:
            x, more = x[batch.sampled], None if more is None else more[batch.sampled]
        normed = self._norm(x) if more is None else self._norm.added(x, more)[1]
        logits = self._head(normed)
        if self.architecture.logit_cap:
            logits = torch.tanh(logits / self.architecture.logit_cap) * self.architecture.logit_cap
        return logits


class Loader:
    """Builds a model, taking each tensor from the checkpoint once."""

    def __init__(
        self,
        architecture: Architecture,
        checkpoint: Checkpoint,
        device: Device,
        dtype: torch.dtype,
        *,
        quantization: str,
        shard: Shard | None = None,
        group: Group | None = None,
    ) -> None:
        """`shard` is what this rank has of the model, and `group` joins it with the others'; without, it has all."""
        self._a = architecture
        self._shard = shard or whole(architecture)
        self._group = group
        self._checkpoint = checkpoint
        self._device = device
        self._dtype = dtype
        self._quantization = quantization

    def model(self) -> Model:
        """The decoder, or this rank's part of it, on the device."""
        a = self._a
        embedding = self._tensor("model.embed_tokens.weight", Cut.all(a.vocabulary), Cut.all(a.hidden))
        layers = [self._layer(f"model.layers.{number}.", number) for number in range(len(a.layers))]
        return Model(a, embedding, layers, self._norm("model.norm"), self._head(embedding))

    def _head(self, embedding: Tensor) -> Linear:
        a, own = self._a, self._shard.vocabulary
        head = embedding[own.start : own.stop] if a.tied else self._tensor("lm_head.weight", own, Cut.all(a.hidden))
        if self._group is None:
            return self._linear(head, None)
        missing = self._shard.vocabulary_rows - own.size
        head = functional.pad(head, (0, 0, 0, missing)) if missing else head
        return Joined(self._linear(head, None), self._group, a.vocabulary)

    def _tensor(self, name: str, *cuts: Cut) -> Tensor:
        part = tuple(slice(cut.start, cut.stop) for cut in cuts)
        shape = tuple(cut.whole for cut in cuts)
        return self._checkpoint.tensor(name, shape, self._dtype, part).to(self._device.where)

    def _norm(self, name: str, size: int | None = None) -> Norm:
        offset = self._a.norm_offset
        dtype = torch.float32 if offset else self._dtype  # the sum must not be rounded to fewer digits than its parts
        weight = self._checkpoint.tensor(f"{name}.weight", (size or self._a.hidden,), dtype)
        return norm((weight + offset).to(self._device.where), self._a.eps)

    def _linear(self, weight: Tensor, bias: Tensor | None) -> Linear:
        return linear(self._device, weight, bias, quantization=self._quantization)

    def _joined(self, prefix: str, names: dict[str, Cut], *, bias: bool) -> Linear:
        """Several projections of the same input as one: this rank's outputs of each."""
        inputs = Cut.all(self._a.hidden)
        weight = torch.cat([self._tensor(f"{prefix}{name}.weight", own, inputs) for name, own in names.items()])
        biases = [self._tensor(f"{prefix}{name}.bias", own) for name, own in names.items()] if bias else []
        return self._linear(weight, torch.cat(biases) if bias else None)

    def _summed(self, name: str, inputs: Cut, *, bias: bool) -> Linear:
        """A projection back to x, from this rank's inputs alone."""
        outputs = Cut.all(self._a.hidden)
        weight = self._tensor(f"{name}.weight", outputs, inputs).contiguous()
        bias = bias and not self._shard.rank  # which must be in the sum once
        part = self._linear(weight, self._tensor(f"{name}.bias", outputs) if bias else None)
        return part if self._group is None else Summed(part, self._group)

    def _layer(self, prefix: str, number: int) -> Layer:
        sandwich = self._a.sandwich_norms  # whose names differ: "post attention" is a norm of its own there
        return Layer(
            attention=self._attention(f"{prefix}self_attn.", number),
            feed_forward=self._feed_forward(f"{prefix}mlp."),
            attention_norm=self._norm(f"{prefix}input_layernorm"),
            feed_forward_norm=self._norm(f"{prefix}{'pre_feedforward' if sandwich else 'post_attention'}_layernorm"),
            after_attention=self._norm(f"{prefix}post_attention_layernorm") if sandwich else None,
            after_feed_forward=self._norm(f"{prefix}post_feedforward_layernorm") if sandwich else None,
        )

    def _attention(self, prefix: str, number: int) -> Attention:
        a = self._a
        query, key = self._shard.heads.times(a.head_dim), self._shard.kv_heads.times(a.head_dim)
        return Attention(
            layer=number,
            head_dim=a.head_dim,
            scale=a.attention_scale,
            project=self._joined(prefix, {"q_proj": query, "k_proj": key, "v_proj": key}, bias=a.qkv_bias),
            output=self._summed(f"{prefix}o_proj", query, bias=a.output_bias),
            norms=HeadNorms(self._norm(f"{prefix}q_norm", a.head_dim), self._norm(f"{prefix}k_norm", a.head_dim))
            if a.qk_norm
            else None,
        )

    def _feed_forward(self, prefix: str) -> FeedForward:
        a, own = self._a, self._shard.intermediate
        return FeedForward(
            gate_and_up=self._joined(prefix, {"gate_proj": own, "up_proj": own}, bias=a.mlp_bias),
            down=self._summed(f"{prefix}down_proj", own, bias=a.mlp_bias),
            gate=gate(a.activation, self._device, self._dtype),
        )
