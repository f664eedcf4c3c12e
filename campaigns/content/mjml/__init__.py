"""MJML compilation: tokenizer, validation, merge expressions and a sandboxed compile."""
