"""Tasks that a user brings: their files, their splits, their metrics, and what each kind asks of the fine-tuning engine."""
