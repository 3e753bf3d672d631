"""How well a fresh small model learns from demonstrations: data to text (E2E) and concepts to sentences (CommonGen)."""
