/* Passkeys. A form with data-passkey ("sign-in", "get" or "create") asks the browser for a credential when it is sent,
   puts it into its field `credential` and goes on. No dependencies, and no HTML is made of anything. */

const CALLED_OFF = "NotAllowedError"
const usable = Boolean(window.PublicKeyCredential?.parseRequestOptionsFromJSON)
// Browsers tie passkeys to a name: there is none in http://127.0.0.1/, but there is in http://localhost/.
const named = !/^[\d.]+$|^\[/.test(location.hostname)

async function optionsFor(form) {
  if (form.dataset.passkey !== "sign-in") return JSON.parse(form.querySelector("#passkey-data").textContent)
  const answer = await fetch(form.action, { headers: { Accept: "application/json" } })
  if (!answer.ok) throw new Error("no challenge")
  return answer.json()
}

async function credentialFor(form) {
  const options = await optionsFor(form)
  if (form.dataset.passkey === "create") {
    const wanted = options.creation_options.publicKey
    // The device keeps it and asks for finger, face or PIN: it stands for name and second factor at once.
    wanted.authenticatorSelection = { ...wanted.authenticatorSelection, residentKey: "required", requireResidentKey: true, userVerification: "required" }
    return navigator.credentials.create({ publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(wanted) })
  }
  const wanted = PublicKeyCredential.parseRequestOptionsFromJSON(options.request_options.publicKey)
  return navigator.credentials.get({ publicKey: wanted })
}

function tell(form, text) {
  const place = form.querySelector("[data-passkey-trouble]")
  place.textContent = text
  place.hidden = !text
}

async function send(event) {
  const form = event.currentTarget
  if (form.elements.credential.value) return
  event.preventDefault()
  tell(form, "")
  try {
    form.elements.credential.value = JSON.stringify(await credentialFor(form))
    form.requestSubmit()
  } catch (trouble) {
    tell(form, trouble.name === CALLED_OFF
      ? "Nothing happened: it was called off, took too long, or this device has no passkey for here."
      : "That did not work. Load the page again, or take another way.")
  }
}

for (const form of document.querySelectorAll("form[data-passkey]")) {
  form.addEventListener("submit", send)
  if (usable && named) form.hidden = false
  else tell(form, named ? "This browser knows no passkeys." : "Passkeys need this page under a name, such as localhost, and not under a number.")
}
