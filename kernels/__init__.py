"""Operations on tensors and scales; `reference` says what each means, faster ones are tested against it."""
