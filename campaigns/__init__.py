"""Planning and sending: accounts, contacts, content, forms, campaigns, delivery and the web application.

The repository has one import direction: ``campaigns ← tracking ← workers ← wsgi``. Inside ``campaigns`` a module
imports only from earlier packages of its own layer or from lower layers. ``tests/architecture`` checks both rules.

=====  ==============================================================================
layer  packages
=====  ==============================================================================
5      web layer (``views``, ``api``, ``forms``, ``public``) and ``demo``
4      ``delivery``: sends, preflight, compose, SMTP, journal
3      ``planning``: campaigns, activities and their services
2      ``content``: messages and templates; ``leads``, then ``capture``: forms
1      ``accounts``: users, roles, audit log; then ``audience``: contacts, consent, imports
0      ``clock config db encryption errors i18n optimistic_lock outbox retries tokens``
=====  ==============================================================================

``web`` holds the application factory and the page components that the views share. A package consists of
``models.py`` (tables), service modules, and its web layer. Service functions take ``session`` and ``actor`` and never
commit: the view, task or command commits.
"""
