"""Registration of images: transforms, linear and deformable methods."""
