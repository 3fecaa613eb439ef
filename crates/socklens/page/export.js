// The calls so far as a program, to read, copy or save.

const LANGUAGES = [
  ["py", "Python", "Runs with python3, on the loopback network of one machine."],
  ["rs", "Rust", "Runs with the crate sock, on the loopback network of one machine."],
  ["c", "C", "Runs on the loopback network of one machine. The command that compiles it is at its head."],
  ["strace", "strace", "The system calls as strace prints them, with one process for each host."],
];

class Export {
  constructor(app) {
    this.app = app;
    this.extension = "py";
    $("languages").replaceChildren(...LANGUAGES.map(([extension, name]) =>
      h("button", { "data-language": extension, "aria-pressed": "false", onclick: () => this.show(extension) }, name)));
    this.update();
    $("export").onclick = () => this.open();
    $("export-close").onclick = () => $("export-box").close();
    $("export-copy").onclick = () => this.copy();
  }

  // The calls of foreign programs are those of the programs already.
  get isPossible() {
    return this.app.mode === "live" ? !this.app.recording.ofPrograms : this.app.boot.programs.length > 0;
  }

  update() { $("export").hidden = !this.isPossible; }

  open() {
    if (!this.isPossible) return;
    this.app.pause();
    $("export-box").showModal();
    this.show(this.extension);
  }

  async show(extension) {
    this.extension = extension;
    for (const button of $("languages").children) button.setAttribute("aria-pressed", String(button.dataset.language === extension));
    const [, , note] = LANGUAGES.find(([known]) => known === extension);
    let text = "", problem = "";
    try {
      text = await this.fetch(extension);
    } catch (error) {
      problem = error.message;
    }
    // Another language may have been selected meanwhile.
    if (this.extension !== extension) return;
    setText($("export-note"), problem || note);
    setText($("export-text"), text);
    $("export-text").hidden = !text;
    $("export-text").scrollTop = 0;
    $("export-copy").disabled = !text;
    const save = $("export-save");
    save.hidden = !text;
    save.download = `${(this.app.recording.source.name || "lesson").replace(/\.scn$/, "")}.${extension}`;
    save.href = `data:text/plain;charset=utf-8,${encodeURIComponent(text)}`;
  }

  // A page without a server has the programs in itself.
  async fetch(extension) {
    if (this.app.mode === "replay") return this.app.boot.programs.find(program => program.k === extension).text;
    const answer = await fetch(`session.${extension}`, { headers: { "X-Socklens-Token": this.app.boot.token } });
    const text = await answer.text();
    if (!answer.ok) throw new Error(answer.status === 409 ? `There is nothing to export yet: ${text}.` : `${answer.status}: ${text}`);
    return text;
  }

  async copy() {
    const text = $("export-text");
    let isCopied = true;
    try {
      await navigator.clipboard.writeText(text.textContent);
    } catch {
      // Without the permission, as a selection of the user.
      getSelection().selectAllChildren(text);
      isCopied = document.execCommand("copy");
    }
    setText($("export-note"), isCopied ? "Copied." : "The browser does not permit it. The text is selected, so press Ctrl-C.");
  }
}
