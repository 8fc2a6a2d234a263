"""A small classifier of sentences: the mean of their words' vectors beside the strongest of their word pairs.

For a few thousand sentences, where a transformer would learn them by heart.

Source: Joulin et al., Bag of Tricks for Efficient Text Classification (2016); Kim, Convolutional Neural Networks for
Sentence Classification (2014).
Legend of shapes: B rows, T tokens, D width, K classes.
"""

import torch
from torch import nn

_SPREAD = 0.1  # of the vectors at the start; with torch's 1 the mean of a sentence says little for long


class Sentence(nn.Module):
    def __init__(self, vocabulary: int, width: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width, padding_idx=0)
        # two zeros at each end: a pair of padding is always among them, whatever a sentence is padded to
        self.pairs = nn.Conv1d(width, width, 2, padding=2)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(2 * width, num_classes)
        with torch.no_grad():
            self.words.weight.mul_(_SPREAD)

    def forward(self, ids_BT: torch.Tensor) -> torch.Tensor:  # noqa: N803 - shape suffixes
        seen_BT1 = (ids_BT != 0).unsqueeze(2).to(self.words.weight.dtype)  # noqa: N806 - shape suffixes
        words_BTD = self.dropout(self.words(ids_BT)) * seen_BT1  # noqa: N806
        mean_BD = words_BTD.sum(1) / seen_BT1.sum(1).clamp(min=1)  # noqa: N806
        strongest_BD = torch.relu(self.pairs(words_BTD.transpose(1, 2))).amax(2)  # noqa: N806
        scores_BK: torch.Tensor = self.classifier(self.dropout(torch.cat([mean_BD, strongest_BD], 1)))  # noqa: N806
        return scores_BK


def sentence_classifier(
    vocabulary: int = 8192, width: int = 48, num_classes: int = 2, dropout: float = 0.5
) -> nn.Module:
    """Input (B, T) token ids, where 0 is padding; output (B, num_classes) scores before softmax."""
    return Sentence(vocabulary, width, num_classes, dropout)
