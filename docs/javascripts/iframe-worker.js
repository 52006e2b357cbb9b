// Search from the file system, where browsers start no worker: run its script in a hidden frame instead. The theme looks
// for the name IFrameWorker.
if (location.protocol === "file:") {
  window.IFrameWorker = window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.waiting = []
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.append(frame)
      this.inside = frame.contentWindow
      const page = frame.contentDocument
      this.inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
      // the script awaits what importScripts returns, and needs the scripts one after the other
      this.inside.importScripts = (...urls) => urls.reduce((before, next) => before.then(() => load(page, next)), Promise.resolve())
      load(page, url).then(() => {
        this.loaded = true
        this.waiting.splice(0).forEach(data => this.deliver(data))
      })
    }
    postMessage(data) {
      this.loaded ? this.deliver(data) : this.waiting.push(data)
    }
    deliver(data) {
      this.inside.dispatchEvent(new MessageEvent("message", { data }))
    }
  }
  function load(page, url) {
    return new Promise((resolve, reject) => {
      const script = page.createElement("script")
      Object.assign(script, { src: url, onload: resolve, onerror: reject })
      page.body.append(script)
    })
  }
}
