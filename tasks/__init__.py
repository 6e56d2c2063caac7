"""What is done: one module per stage of dvc.yaml, and the tracking and the registry around them. No Prefect here."""
