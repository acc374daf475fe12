"""Operations on tensors and scales: `reference` defines each, and tests compare the faster backends with it."""
