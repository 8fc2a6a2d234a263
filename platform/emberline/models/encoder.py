"""A text encoder of the MiniLM-L6 class: token ids in, sentence embedding or class scores out.

Post-norm transformer as BERT's, so that its published weights fit (`from_bert` renames them). The attention learns the
number of heads from its weights, so a pruned one needs no other code. Pruning narrows the inner layers of the
feed-forward parts; what is as wide as the embedding stays, for it is every block's business.

Source: Devlin et al., BERT (2019); Wang et al., MiniLM (2020): 6 layers, 384 wide, 12 heads, 22.7M parameters.
Legend of shapes: B rows, T tokens, D width, H heads, E width of a head, K classes.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from emberline.errors import EmberlineError, MissingFile

_EPSILON = 1e-12  # of BERT's norms


class Attention(nn.Module):
    """Multi-head self-attention. As many heads as the query's weights have rows for."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.head_width = width // heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.output = nn.Linear(width, width)

    def forward(self, x_BTD: torch.Tensor, seen_BT: torch.Tensor) -> torch.Tensor:  # noqa: N803 - shape suffixes
        query, key, value = (self._heads(layer(x_BTD)) for layer in (self.query, self.key, self.value))
        mask = seen_BT[:, None, None, :]
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        answer: torch.Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return answer

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, H·E) → (B, H, T, E)."""
        return x.view(*x.shape[:2], -1, self.head_width).transpose(1, 2)


class Layer(nn.Module):
    """Attention, then a feed-forward part, each added to its input and normalised after."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.attention, self.attention_norm = Attention(width, heads), nn.LayerNorm(width, _EPSILON)
        self.widen, self.narrow = nn.Linear(width, inner), nn.Linear(inner, width)
        self.norm = nn.LayerNorm(width, _EPSILON)

    def forward(self, x_BTD: torch.Tensor, seen_BT: torch.Tensor) -> torch.Tensor:  # noqa: N803 - shape suffixes
        x_BTD = self.attention_norm(x_BTD + self.attention(x_BTD, seen_BT))  # noqa: N806 - shape suffixes
        answer: torch.Tensor = self.norm(x_BTD + self.narrow(functional.gelu(self.widen(x_BTD))))
        return answer


class Encoder(nn.Module):
    """Attributes:
    keep_whole: parts that structured pruning must leave as they are, since the forward relies on their width.
    """

    keep_whole = ("tokens*", "positions*", "start_norm", "layers.*.attention*", "layers.*.narrow", "layers.*.norm")

    def __init__(
        self,
        *,
        vocabulary: int,
        width: int,
        layers: int,
        heads: int,
        inner: int,
        positions: int,
        classes: int,
        table: int,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is no multiple of heads {heads}")
        embedding = nn.Embedding(vocabulary, table, padding_idx=0)
        self.tokens: nn.Module = (
            embedding if table == width else nn.Sequential(embedding, nn.Linear(table, width, bias=False))
        )
        self.positions = nn.Embedding(positions, width)
        self.start_norm = nn.LayerNorm(width, _EPSILON)
        self.layers = nn.ModuleList(Layer(width, heads, inner) for _ in range(layers))
        self.classifier: nn.Module = nn.Linear(width, classes) if classes else nn.Identity()

    def forward(self, ids_BT: torch.Tensor) -> torch.Tensor:  # noqa: N803 - shape suffixes
        seen_BT = ids_BT != 0  # noqa: N806 - shape suffixes
        places = torch.arange(ids_BT.shape[1], device=ids_BT.device)
        x_BTD = self.start_norm(self.tokens(ids_BT) + self.positions(places))  # noqa: N806
        for layer in self.layers:
            x_BTD = layer(x_BTD, seen_BT)  # noqa: N806
        weights_BT1 = seen_BT.unsqueeze(2).to(x_BTD.dtype)  # noqa: N806
        mean_BD = (x_BTD * weights_BT1).sum(1) / weights_BT1.sum(1).clamp(min=1)  # noqa: N806
        answer: torch.Tensor = self.classifier(mean_BD)
        return answer


def encoder(
    classes: int = 0,
    *,
    vocabulary: int = 30522,
    width: int = 384,
    layers: int = 6,
    heads: int = 12,
    inner: int = 1536,
    positions: int = 512,
    table: int | None = None,
) -> nn.Module:
    """Input (B, T) token ids, where 0 is padding and stands last; output (B, classes) scores before softmax.

    Args:
        classes: 0 gives the mean of the last layer, (B, width): a sentence's embedding, not normalised.
        table: width of the table of tokens, projected to `width`: a factorised embedding, the net's largest part less.
    """
    return Encoder(
        vocabulary=vocabulary, width=width, layers=layers, heads=heads, inner=inner, positions=positions,
        classes=classes, table=table or width,
    )  # fmt: skip


def pretrained(weights: str, classes: int = 2, **shape: int) -> nn.Module:
    """The encoder with the published weights of a BERT-like checkpoint, and a new classifier over it.

    Args:
        weights: the checkpoint's `model.safetensors`, from the working directory. It is read whenever the module is
            made, so it has to stay where it is while the recipe is worked on.
        shape: as `encoder` takes it; fewer `positions` than published keep the first ones.

    Raises:
        MissingFile: there are no such weights.
        EmberlineError: they are of another shape.
    """
    path = Path(weights)
    if not path.is_file():
        raise MissingFile(path, "the published weights", hint="model.arguments.weights names them")
    net = encoder(classes, **shape)
    renamed = from_bert(load_file(path))
    renamed["positions.weight"] = renamed["positions.weight"][: len(net.get_parameter("positions.weight"))]
    try:
        missing, unknown = net.load_state_dict(renamed, strict=False)
    except RuntimeError as error:
        raise EmberlineError(" ".join(str(error).split())[:300], place=path) from error
    if unknown or any(not name.startswith("classifier.") for name in missing):
        fact = f"the weights lack {missing} and hold {unknown} beside them"
        raise EmberlineError(fact, place=path, hint="layers, and table, are to be as published")
    return net


def from_bert(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of a BERT-like checkpoint under this module's names; token types are fixed to the first, pooler left out.

    Load them with `strict=False` where the module has a classifier, which no such checkpoint has.
    """
    renamed = {
        "tokens.weight": tensors["embeddings.word_embeddings.weight"],
        # every sentence here is of the first type, whose vector therefore joins the positions'
        "positions.weight": tensors["embeddings.position_embeddings.weight"]
        + tensors["embeddings.token_type_embeddings.weight"][0],
    }
    names = {
        "attention.self.": "attention.",
        "attention.output.dense.": "attention.output.",
        "attention.output.LayerNorm.": "attention_norm.",
        "intermediate.dense.": "widen.",
        "output.dense.": "narrow.",
        "output.LayerNorm.": "norm.",
    }
    for name, tensor in tensors.items():
        if name.startswith("embeddings.LayerNorm."):
            renamed[name.replace("embeddings.LayerNorm.", "start_norm.")] = tensor
        elif name.startswith("encoder.layer."):
            number, _, rest = name.removeprefix("encoder.layer.").partition(".")
            old = next(one for one in names if rest.startswith(one))
            renamed[f"layers.{number}.{names[old]}{rest.removeprefix(old)}"] = tensor
    return renamed
