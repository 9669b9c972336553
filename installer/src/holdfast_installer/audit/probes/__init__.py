"""One module per control: `observe` looks, `judge` is pure and turns observations into verdicts."""
