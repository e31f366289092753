// Package eshttp connects net/http with package es: options of a command from the headers of a request, errors as responses,
// reads that see the client's own writes, records as server-sent events, health checks, and a server as a task of [es.Run].
//
//	func pay(w http.ResponseWriter, r *http.Request) {
//		options, err := eshttp.Options(r)
//		if err != nil {
//			eshttp.Error(w, r, err)
//			return
//		}
//		result, err := orders.Execute(r.Context(), r.PathValue("id"), shop.Pay{}, options...)
//		if err != nil {
//			eshttp.Error(w, r, err)
//			return
//		}
//		eshttp.SetVersion(w, result.Version)
//		eshttp.SetPosition(w, result.Position)
//	}
package eshttp
