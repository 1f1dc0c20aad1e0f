"""What trains and how: one LightningModule a fine-tuning strategy."""
