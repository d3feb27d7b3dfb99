"""Models: timm Vision Transformers over images and volumes at any patch size."""
