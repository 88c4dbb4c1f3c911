"""A convolution over neighbours, then one that takes ``k`` positions together."""

from torch import Tensor, nn


class Projector(nn.Module):
    """Two convolutions with GELU, a linear layer, layer norm; as many tokens as concat-linear."""

    def __init__(
        self,
        encoder_size: int,
        text_size: int,
        k: int = 5,
        hidden: int = 1024,
        kernel: int = 3,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.k = k
        self.near = nn.Conv1d(encoder_size, hidden, kernel, padding="same")
        self.stride = nn.Conv1d(hidden, hidden, k, stride=k)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(hidden, text_size)
        self.norm = nn.LayerNorm(text_size, eps=1e-5)

    def forward(self, hidden: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """See the package."""
        inside = 1 if mask is None else mask[:, None].to(hidden.dtype)
        near = nn.functional.gelu(self.near(hidden.transpose(1, 2) * inside))
        tokens = nn.functional.gelu(self.stride(near)).transpose(1, 2)
        embeddings = self.norm(self.out(self.dropout(tokens)))
        return embeddings, None if mask is None else mask[:, self.k - 1 :: self.k]
