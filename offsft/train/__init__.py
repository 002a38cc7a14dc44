"""Training with a weighted loss: DeepSpeed ZeRO under Ray Train."""
