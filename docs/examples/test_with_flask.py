"""Tests of a Flask application that sends mail by Flask-Mail.  Run them: pytest test_with_flask.py"""

import pytest

flask = pytest.importorskip("flask")
flask_mail = pytest.importorskip("flask_mail")


def make_application(host, port):
    application = flask.Flask("shop")
    application.config.update(MAIL_SERVER=host, MAIL_PORT=port, MAIL_DEFAULT_SENDER="shop@example.test")
    mail = flask_mail.Mail(application)

    @application.post("/orders")
    def order():
        mail.send(flask_mail.Message("Your order", recipients=["ann@example.test"], body="Thank you."))
        return "ordered"

    return application


def test_order_is_confirmed(mail_host):
    client = make_application(*mail_host.smtp_address).test_client()
    assert client.post("/orders").status_code == 200
    assert mail_host.inbox("ann").wait_for(subject="Your order")["From"] == "shop@example.test"
