"""Evidence to PDF: templates, styles, fonts."""
