"""Teachers that are made of other teachers: several views of an image, an anchored comparison, several as one."""
