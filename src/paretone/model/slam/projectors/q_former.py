"""A fixed number of learned queries that look at all positions."""

import torch
from torch import Tensor, nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel


class Projector(nn.Module):
    """The Q-Former of BLIP-2 (arXiv 2301.12597), a linear layer, layer norm: ``queries`` tokens for every recording."""

    def __init__(
        self,
        encoder_size: int,
        text_size: int,
        queries: int = 64,
        layers: int = 2,
        heads: int = 8,
        hidden: int = 768,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.queries = nn.Parameter(0.02 * torch.randn(1, queries, hidden))
        config = Blip2QFormerConfig(
            vocab_size=1,
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=4 * hidden,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            cross_attention_frequency=1,
            encoder_hidden_size=encoder_size,
        )
        self.former = Blip2QFormerModel(config)
        self.out = nn.Linear(hidden, text_size)
        self.norm = nn.LayerNorm(text_size, eps=1e-5)

    def forward(self, hidden: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """See the package."""
        seen = self.former(
            query_embeds=self.queries.expand(len(hidden), -1, -1),
            encoder_hidden_states=hidden,
            encoder_attention_mask=None if mask is None else mask.to(torch.long),
        ).last_hidden_state
        embeddings = self.norm(self.out(seen))
        ones = None if mask is None else mask.new_ones(embeddings.shape[:2])
        return embeddings, ones
