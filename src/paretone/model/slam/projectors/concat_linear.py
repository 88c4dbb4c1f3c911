"""Neighbouring positions joined and put through two linear layers."""

from torch import Tensor, nn


class Projector(nn.Module):
    """Linear, ReLU, dropout, linear, layer norm on ``k`` joined positions; what is left over at the end is dropped.

    Source: the official code of arXiv 2603.27981.
    """

    def __init__(self, encoder_size: int, text_size: int, k: int = 5, hidden: int = 2048, dropout: float = 0.1) -> None:
        super().__init__()
        self.k = k
        self.first = nn.Linear(k * encoder_size, hidden)
        self.dropout = nn.Dropout(dropout)
        self.second = nn.Linear(hidden, text_size)
        self.norm = nn.LayerNorm(text_size, eps=1e-5)

    def forward(self, hidden: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """See the package."""
        tokens = hidden.shape[1] // self.k
        joined = hidden[:, : tokens * self.k].reshape(len(hidden), tokens, -1)
        embeddings = self.norm(self.second(self.dropout(self.first(joined).relu())))
        return embeddings, None if mask is None else mask[:, self.k - 1 :: self.k]
