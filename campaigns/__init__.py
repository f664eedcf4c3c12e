"""Planning and sending: accounts, contacts, content, forms, campaigns, delivery and the web application.

Layers, lowest first; a module imports only from lower ones. ``tests/architecture`` checks it, and ``ARCHITECTURE.md``
explains it.

=====  ======================================================================================
layer  packages
=====  ======================================================================================
base   ``config errors i18n``, ``clock db``, ``optimistic_lock encryption``, ``tokens``,
       ``outbox retries``
1      ``accounts``: users, roles, API keys, audit log; then ``audience``: contacts, consent
2      ``content``: messages and templates; ``leads``; then ``capture``: forms
3      ``planning``: campaigns, activities and their launch
4      ``delivery``: preflight, sends, compose, SMTP, bounces
5      web layer: ``web`` and the modules ``views``, ``api``, ``forms`` and ``public`` of all
       packages; ``mail_catcher``, ``demo``
6      entry points: ``migrations``, ``cli``
=====  ======================================================================================

A package consists of ``models.py`` (tables), service modules, and its web layer. Service functions take ``session``
and ``actor`` and never commit: the view, task or command commits.
"""
