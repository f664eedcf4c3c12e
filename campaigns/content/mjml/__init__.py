"""MJML compilation: tokenizer, validator, merge expressions, compiler, sandbox process."""
