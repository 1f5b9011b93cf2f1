// A line runs over the rows with the sound; a word plays from its beginning.
for (const pane of document.querySelectorAll(".pane")) {
  const audio = pane.querySelector("audio");
  const cursors = [...pane.querySelectorAll(".cursor")];
  const show = () => {
    for (const cursor of cursors) {
      const { first, last } = cursor.dataset;
      const at = (audio.currentTime - first) / (last - first);
      cursor.hidden = at < 0 || at >= 1;
      cursor.style.left = 100 * at + "%";
    }
    if (!audio.paused) requestAnimationFrame(show);
  };
  for (const event of ["play", "seeked"]) audio.addEventListener(event, show);
  pane.addEventListener("click", ({ target }) => {
    if (target.dataset.at === undefined) return;
    audio.currentTime = target.dataset.at;
    audio.play();
  });
}
