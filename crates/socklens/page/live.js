// The connection to the server of a lesson that runs.

class Live {
  constructor(app, token) {
    this.app = app;
    this.token = token;
    this.run = null;
    this.source = null;
    this.batch = [];
    this.timer = null;
  }

  open() {
    const source = new EventSource(`events?token=${encodeURIComponent(this.token)}`);
    this.source = source;
    source.addEventListener("run", event => {
      this.batch = [];
      this.app.restart(JSON.parse(event.data));
    });
    source.onmessage = event => {
      // The browser resumes with the last identity after a lost connection, so none comes twice.
      this.app.arrive(JSON.parse(event.data));
    };
    source.onopen = () => { this.app.connected(true); };
    source.onerror = () => {
      this.app.connected(false);
      // A refusal ends the source; a lost connection does not.
      if (source.readyState === EventSource.CLOSED) {
        clearTimeout(this.timer);
        this.timer = setTimeout(() => this.open(), 1500);
      }
    };
  }

  async post(path) {
    try {
      const answer = await fetch(path, { method: "POST", headers: { "X-Socklens-Token": this.token } });
      if (!answer.ok) this.app.refused(`${answer.status}: ${await answer.text()}`);
      return answer.ok;
    } catch {
      this.app.connected(false);
      return false;
    }
  }
}
