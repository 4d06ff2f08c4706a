"""`sparsecompile bench attention`: attention as models call it, against torch's."""
